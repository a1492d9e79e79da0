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
        table=places.METRICS_TABLE,
        origin=origin(places.METRICS_TABLE),
    log:
        "results/logs/collect_metrics.log",
    localrule: True
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
        intervals=places.INTERVALS,
        differences=places.DIFFERENCES,
        origins=origin([places.INTERVALS, places.DIFFERENCES]),
    log:
        "results/logs/collect_intervals.log",
    localrule: True
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
        table=places.COSTS_TABLE,
        origin=origin(places.COSTS_TABLE),
    log:
        "results/logs/collect_costs.log",
    localrule: True
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        library=code_of("collect_costs"),
    script:
        "../scripts/collect_costs.py"
