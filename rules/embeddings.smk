rule embed:
    input:
        manifest="results/data/{dataset}/manifest.csv",
    output:
        tokens="results/embeddings/{dataset}/{embedding}/{split}.h5",
        cost="results/embeddings/{dataset}/{embedding}/{split}.cost.json",
    params:
        options=lambda wildcards: entry("embeddings", wildcards.embedding),
        device=RUN["device"],
        library=LIBRARY,
    log:
        "results/logs/embed/{dataset}/{embedding}/{split}.log",
    threads: 2
    resources:
        gpu=1,
        mem_mb=6000,
    conda:
        "../envs/torch.yaml"
    script:
        "../scripts/embed.py"
