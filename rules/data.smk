rule prepare_dataset:
    output:
        manifest="results/data/{dataset}/manifest.csv",
    params:
        options=lambda wildcards: entry("datasets", wildcards.dataset),
        library=LIBRARY,
    log:
        "results/logs/prepare_dataset/{dataset}.log",
    conda:
        "../envs/data.yaml"
    script:
        "../scripts/prepare_dataset.py"
