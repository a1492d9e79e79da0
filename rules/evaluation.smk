rule evaluate:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        test="results/scores/{dataset}/{embedding}/{model}/seed-{seed}/test.h5",
        valid="results/scores/{dataset}/{embedding}/{model}/seed-{seed}/valid.h5",
    output:
        metrics="results/metrics/{dataset}/{embedding}/{model}/seed-{seed}.json",
        curves="results/curves/{dataset}/{embedding}/{model}/seed-{seed}.h5",
    log:
        "results/logs/evaluate/{dataset}/{embedding}/{model}/seed-{seed}.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        labels=lambda wildcards: CONFIGURATION.models[wildcards.model].labels(),
        mask_rules=list(RUN.mask_rules),
        smoothing_sigma=RUN.smoothing_sigma,
        n_resamples=RUN.bootstrap_resamples,
        mask_size=EVALUATED.get("mask_size"),
        image_score_fraction=RUN.image_score_fraction,
        library=LIBRARY,
    script:
        "../scripts/evaluate.py"


rule collect_metrics:
    input:
        metrics=over(METRICS_FILE),
    output:
        table="results/metrics.csv",
    log:
        "results/logs/collect_metrics.log",
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        library=LIBRARY,
    script:
        "../scripts/collect_metrics.py"


rule collect_intervals:
    input:
        metrics=over(METRICS_FILE),
        curves=over(CURVES_FILE),
    output:
        intervals="results/intervals.csv",
        differences="results/differences.csv",
    log:
        "results/logs/collect_intervals.log",
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        baseline=RUN.baseline,
        library=LIBRARY,
    script:
        "../scripts/collect_intervals.py"


rule collect_costs:
    input:
        embeddings=expand(
            "results/embeddings/{dataset}/{embedding}/test.cost.json",
            dataset=RUN.datasets,
            embedding=RUN.embeddings,
        ),
        fits=over(f"results/models/{FITTED}.cost.json"),
        scores=over(f"results/scores/{FITTED}/test.cost.json"),
    output:
        table="results/costs.csv",
    log:
        "results/logs/collect_costs.log",
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        library=LIBRARY,
    script:
        "../scripts/collect_costs.py"
