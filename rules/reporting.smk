rule make_table:
    input:
        metrics="results/metrics.csv",
        costs="results/costs.csv",
        published=local(Path(workflow.basedir, "resources/published/published.csv")),
    output:
        csv=report(
            "results/tables/{table}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        md="results/tables/{table}.md",
        tex="results/tables/{table}.tex",
    log:
        "results/logs/make_table/{table}.log",
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        run=RUN.plain(),
        library=LIBRARY,
    script:
        "../scripts/make_table.py"


rule draw_figure:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        tokens="results/embeddings/{dataset}/{embedding}/test.h5",
        models=beside(MODEL_FILE, FIGURE_MODELS, first_seed),
        test=beside(TEST_SCORES, FIGURE_MODELS, first_seed),
        valid=beside(VALID_SCORES, FIGURE_MODELS, first_seed),
        metrics=beside(METRICS_FILE, FIGURE_MODELS, first_seed),
        curves=beside(CURVES_FILE, FIGURE_MODELS, first_seed),
    output:
        png=report(
            "results/figures/{dataset}/{embedding}/{figure}.png",
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{dataset}, {embedding}",
            labels={"figure": "{figure}"},
        ),
        pdf="results/figures/{dataset}/{embedding}/{figure}.pdf",
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
        library=LIBRARY,
    script:
        "../scripts/draw_figure.py"


rule summarise:
    input:
        tables=expand("results/tables/{table}.md", table=RUN.tables),
    output:
        summary="results/summary.md",
    log:
        "results/logs/summarise.log",
    conda:
        "../envs/reporting.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        title=RUN.title,
        note=RUN.note,
        library=LIBRARY,
    script:
        "../scripts/summarise.py"


rule write_report:
    input:
        metrics="results/metrics.csv",
        costs="results/costs.csv",
        intervals="results/intervals.csv",
        differences="results/differences.csv",
        strata="results/strata.csv",
        alignment=alignment_files("csv"),
        alignment_figures=alignment_files("png"),
        published=local(Path(workflow.basedir, "resources/published/published.csv")),
        figures=all_figures("png"),
        manifests=expand("results/data/{dataset}/manifest.csv", dataset=RUN.datasets),
        checksums=expand("results/data/{dataset}/checksums.csv", dataset=RUN.datasets),
        test=over(TEST_SCORES, models=FIGURE_MODELS, seeds=first_seed),
        valid=over(VALID_SCORES, models=FIGURE_MODELS, seeds=first_seed),
        model_metrics=over(METRICS_FILE, models=FIGURE_MODELS, seeds=first_seed),
        curves=over(CURVES_FILE, models=FIGURE_MODELS, seeds=first_seed),
        templates=local(report_templates()),
    output:
        report=report(
            "results/report.html",
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
        models=over(
            "{dataset}/{embedding}/{model}", models=FIGURE_MODELS, seeds=first_seed
        ),
        config=CONFIGURATION.used(),
        command=command_line(),
        commit=git_commit(),
        library=LIBRARY,
    script:
        "../scripts/write_report.py"
