rule embed:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        manifest_origin=origin(places.MANIFEST),
        accepted="results/data/{dataset}/accepted.txt",
    output:
        tokens="results/embeddings/{dataset}/{embedding}/{split}.h5",
        cost="results/embeddings/{dataset}/{embedding}/{split}.cost.json",
    log:
        "results/logs/embed/{dataset}/{embedding}/{split}.log",
    conda:
        TORCH
    threads: 2
    resources:
        gpu=GPU,
        mem_mb=growing(6000),
        runtime=growing(240),
    params:
        options=lambda wildcards: CONFIGURATION.embeddings[
            wildcards.embedding
        ].decisive(),
        batch_size=uncompared(batch_size),
        device=uncompared(RUN.device),
        library=code_of("embed"),
    script:
        "../scripts/embed.py"
