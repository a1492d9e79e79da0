rule describe_cases:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        accepted=places.ACCEPTED,
        metadata=metadata_of,
    output:
        cases=places.CASES,
        origin=origin(places.CASES),
    log:
        "results/logs/describe_cases/{dataset}.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        mask_rule=RUN.mask_rules[0],
        library=code_of("describe_cases"),
    script:
        "../scripts/describe_cases.py"


rule stratify:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        cases=places.CASES,
        cases_origin=origin(places.CASES),
        test=TEST_SCORES,
        valid=VALID_SCORES,
    output:
        strata=places.STRATA,
        origin=origin(places.STRATA),
    log:
        "results/logs/stratify/{dataset}/{embedding}/{model}/seed-{seed}.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        score=lambda wildcards: CONFIGURATION.models[wildcards.model].scores[0],
        protocol=protocol(*EVALUATED, "threshold_maps"),
        grouping=lambda wildcards: CONFIGURATION.datasets[wildcards.dataset].grouping(),
        library=code_of("stratify"),
    script:
        "../scripts/stratify.py"


rule collect_strata:
    input:
        strata=over(places.STRATA, models=FIGURE_MODELS, seeds=first_seed),
        origins=origin(over(places.STRATA, models=FIGURE_MODELS, seeds=first_seed)),
    output:
        table=places.STRATA_TABLE,
        origin=origin(places.STRATA_TABLE),
    log:
        "results/logs/collect_strata.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        library=code_of("collect_strata"),
    script:
        "../scripts/collect_strata.py"


rule align:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        tokens=places.fill(places.TOKENS, split="test"),
        models=beside(MODEL_FILE, RUN.alignment_models, seeds_of),
    output:
        table=places.fill(places.ALIGNMENT, extension="csv"),
        origin=origin(places.fill(places.ALIGNMENT, extension="csv")),
        png=report(
            places.fill(places.ALIGNMENT, extension="png"),
            caption="../report/alignment.rst",
            category="Figures",
            subcategory="{dataset}, {embedding}",
            labels={"figure": "alignment"},
        ),
        pdf=places.fill(places.ALIGNMENT, extension="pdf"),
    log:
        "results/logs/align/{dataset}/{embedding}.log",
    conda:
        "../envs/torch.yaml"
    threads: 2
    resources:
        mem_mb=growing(6000),
        runtime=growing(60),
    params:
        names=beside("{model}", RUN.alignment_models, seeds_of),
        grid=grid_of,
        mask_rule=RUN.mask_rules[0],
        library=code_of("align"),
    script:
        "../scripts/align.py"
