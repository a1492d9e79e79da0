rule make_table:
    input:
        metrics=places.METRICS_TABLE,
        costs=places.COSTS_TABLE,
        origins=origin([places.METRICS_TABLE, places.COSTS_TABLE]),
        published=local(ROOT / "resources/published/published.csv"),
    output:
        csv=report(
            places.fill(places.TABLE, extension="csv"),
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        md=places.fill(places.TABLE, extension="md"),
        tex=places.fill(places.TABLE, extension="tex"),
        origins=origin(
            [places.fill(places.TABLE, extension=kind) for kind in TABLE_FORMATS]
        ),
    log:
        "results/logs/make_table/{table}.log",
    localrule: True
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        protocol=protocol(*COMPARED),
        library=code_of("make_table"),
    script:
        "../scripts/make_table.py"


rule draw_figure:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        tokens=places.fill(places.TOKENS, split="test"),
        models=beside(MODEL_FILE, FIGURE_MODELS, first_seed),
        test=beside(TEST_SCORES, FIGURE_MODELS, first_seed),
        valid=beside(VALID_SCORES, FIGURE_MODELS, first_seed),
        metrics=beside(METRICS_FILE, FIGURE_MODELS, first_seed),
        curves=beside(CURVES_FILE, FIGURE_MODELS, first_seed),
        fit_costs=beside(places.MODEL_COST, FIGURE_MODELS, first_seed),
        score_costs=beside(
            places.fill(places.SCORES_COST, split="test"), FIGURE_MODELS, first_seed
        ),
    output:
        png=report(
            places.fill(places.FIGURE, extension="png"),
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{dataset}, {embedding}",
            labels={"figure": "{figure}"},
        ),
        pdf=places.fill(places.FIGURE, extension="pdf"),
    log:
        "results/logs/draw_figure/{dataset}/{embedding}/{figure}.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        names=FIGURE_MODELS,
        grid=grid_of,
        mask_rule=RUN.mask_rules[0],
        library=code_of("draw_figure"),
    script:
        "../scripts/draw_figure.py"


rule summarise:
    input:
        tables=all_tables("md"),
        origins=origin(all_tables("md")),
    output:
        summary=places.SUMMARY,
    log:
        "results/logs/summarise.log",
    localrule: True
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        title=RUN.title,
        note=RUN.note,
        library=code_of("summarise"),
    script:
        "../scripts/summarise.py"


rule write_report:
    input:
        metrics=places.METRICS_TABLE,
        costs=places.COSTS_TABLE,
        intervals=places.INTERVALS,
        differences=places.DIFFERENCES,
        strata=places.STRATA_TABLE,
        origins=origin(RUN_TABLES),
        alignment=alignment_files("csv"),
        alignment_origins=origin(alignment_files("csv")),
        alignment_figures=alignment_files("png"),
        students=run_students(places.STUDENT_FILE),
        student_costs=run_students(places.STUDENT_COST),
        published=local(ROOT / "resources/published/published.csv"),
        figures=all_figures("png"),
        manifests=expand(places.MANIFEST, dataset=RUN.datasets),
        manifest_origins=expand(origin(places.MANIFEST), dataset=RUN.datasets),
        checksums=expand(places.CHECKSUMS, dataset=RUN.datasets),
        checksum_origins=expand(origin(places.CHECKSUMS), dataset=RUN.datasets),
        test=over(TEST_SCORES, models=FIGURE_MODELS, seeds=first_seed),
        valid=over(VALID_SCORES, models=FIGURE_MODELS, seeds=first_seed),
        model_metrics=over(METRICS_FILE, models=FIGURE_MODELS, seeds=first_seed),
        curves=over(CURVES_FILE, models=FIGURE_MODELS, seeds=first_seed),
    output:
        report=report(
            places.REPORT,
            caption="../report/comparison.rst",
            category="Comparison report",
        ),
    log:
        "results/logs/write_report.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        datasets=list(RUN.datasets),
        config=CONFIGURATION.used(),
        command=command_line(),
        commit=uncompared(lambda wildcards: git_commit()),
        library=code_of("write_report"),
    script:
        "../scripts/write_report.py"
