rule evaluate:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        model=MODEL_FILE,
        test=TEST_SCORES,
        valid=VALID_SCORES,
    output:
        metrics=METRICS_FILE,
        curves=CURVES_FILE,
    log:
        "results/logs/evaluate/{dataset}/{embedding}/{model}/seed-{seed}.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        labels=lambda wildcards: CONFIGURATION.models[wildcards.model].labels(),
        protocol=protocol(*EVALUATED),
        library=code_of("evaluate"),
    script:
        "../scripts/evaluate.py"


rule collect_metrics:
    input:
        metrics=over(METRICS_FILE),
        curves=over(CURVES_FILE),
    output:
        table="results/metrics.csv",
        origin=origin("results/metrics.csv"),
    log:
        "results/logs/collect_metrics.log",
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        library=code_of("collect_metrics"),
    script:
        "../scripts/collect_metrics.py"


rule collect_intervals:
    input:
        metrics=over(METRICS_FILE),
        curves=over(CURVES_FILE),
    output:
        intervals="results/intervals.csv",
        differences="results/differences.csv",
        origins=origin(["results/intervals.csv", "results/differences.csv"]),
    log:
        "results/logs/collect_intervals.log",
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        baseline=RUN.baseline,
        library=code_of("collect_intervals"),
    script:
        "../scripts/collect_intervals.py"


rule collect_costs:
    input:
        embeddings=expand(
            places.fill(places.TOKENS_COST, split="test"),
            dataset=RUN.datasets,
            embedding=RUN.embeddings,
        ),
        fits=over(places.MODEL_COST),
        scores=over(places.fill(places.SCORES_COST, split="test")),
    output:
        table="results/costs.csv",
        origin=origin("results/costs.csv"),
    log:
        "results/logs/collect_costs.log",
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        library=code_of("collect_costs"),
    script:
        "../scripts/collect_costs.py"
