rule fit_model:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        train="results/embeddings/{dataset}/{embedding}/train.h5",
        valid="results/embeddings/{dataset}/{embedding}/valid.h5",
    output:
        model="results/models/{dataset}/{embedding}/{model}/seed-{seed}.h5",
        cost="results/models/{dataset}/{embedding}/{model}/seed-{seed}.cost.json",
    params:
        options=lambda wildcards: entry("models", wildcards.model),
        grid=lambda wildcards: entry("embeddings", wildcards.embedding).get("grid"),
        device=RUN["device"],
        library=LIBRARY,
    log:
        "results/logs/fit_model/{dataset}/{embedding}/{model}/seed-{seed}.log",
    threads: 2
    resources:
        gpu=1,
        mem_mb=6000,
    conda:
        "../envs/torch.yaml"
    script:
        "../scripts/fit_model.py"
