rule fit_model:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        manifest_origin=origin(places.MANIFEST),
        train="results/embeddings/{dataset}/{embedding}/train.h5",
        valid="results/embeddings/{dataset}/{embedding}/valid.h5",
    output:
        model="results/models/{dataset}/{embedding}/{model}/seed-{seed}.h5",
        cost="results/models/{dataset}/{embedding}/{model}/seed-{seed}.cost.json",
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
