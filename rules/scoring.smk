rule score:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        manifest_origin=origin(places.MANIFEST),
        model="results/models/{dataset}/{embedding}/{model}/seed-{seed}.h5",
        train="results/embeddings/{dataset}/{embedding}/train.h5",
        tokens="results/embeddings/{dataset}/{embedding}/{split}.h5",
    output:
        scores="results/scores/{dataset}/{embedding}/{model}/seed-{seed}/{split}.h5",
        cost="results/scores/{dataset}/{embedding}/{model}/seed-{seed}/{split}.cost.json",
    log:
        "results/logs/score/{dataset}/{embedding}/{model}/seed-{seed}/{split}.log",
    conda:
        TORCH
    threads: 2
    resources:
        gpu=GPU,
        mem_mb=scoring_memory,
        runtime=growing(120),
    params:
        options=lambda wildcards: CONFIGURATION.models[wildcards.model].decisive(),
        grid=grid_of,
        device=uncompared(RUN.device),
        cache=uncompared(RUN.cache),
        image_score_fraction=RUN.image_score_fraction,
        library=code_of("score"),
    script:
        "../scripts/score.py"
