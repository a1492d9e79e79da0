rule fit_model:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        train=places.fill(places.TOKENS, split="train"),
        valid=places.fill(places.TOKENS, split="valid"),
    output:
        model=places.MODEL,
        cost=places.MODEL_COST,
    log:
        "results/logs/fit_model/{dataset}/{embedding}/{model}/seed-{seed}.log",
    conda:
        TORCH
    threads: lambda wildcards: max(2, fit_processes(wildcards))
    resources:
        gpu=lambda wildcards: GPU * fit_processes(wildcards),
        mem_mb=fitting_memory,
        runtime=growing(240),
    params:
        options=lambda wildcards: CONFIGURATION.models[wildcards.model].fit_options(),
        grid=grid_of,
        device=uncompared(RUN.device),
        cache=uncompared(RUN.cache),
        processes=uncompared(fit_processes),
        library=code_of("fit_model"),
    script:
        "../scripts/fit_model.py"
