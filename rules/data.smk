rule prepare_dataset:
    output:
        manifest="results/data/{dataset}/manifest.csv",
    log:
        "results/logs/prepare_dataset/{dataset}.log",
    conda:
        "../envs/data.yaml"
    params:
        options=lambda wildcards: entry("datasets", wildcards.dataset),
        library=LIBRARY,
    script:
        "../scripts/prepare_dataset.py"
