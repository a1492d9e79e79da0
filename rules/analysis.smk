rule describe_cases:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        accepted="results/data/{dataset}/accepted.txt",
    output:
        cases="results/data/{dataset}/cases.csv",
    log:
        "results/logs/describe_cases/{dataset}.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        mask_rule=RUN.mask_rules[0],
        library=LIBRARY,
    script:
        "../scripts/describe_cases.py"


rule stratify:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        cases="results/data/{dataset}/cases.csv",
        test="results/scores/{dataset}/{embedding}/{model}/seed-{seed}/test.h5",
        valid="results/scores/{dataset}/{embedding}/{model}/seed-{seed}/valid.h5",
    output:
        strata="results/strata/{dataset}/{embedding}/{model}/seed-{seed}.csv",
    log:
        "results/logs/stratify/{dataset}/{embedding}/{model}/seed-{seed}.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        score=lambda wildcards: CONFIGURATION.models[wildcards.model].scores[0],
        run=EVALUATED,
        library=LIBRARY,
    script:
        "../scripts/stratify.py"


rule collect_strata:
    input:
        strata=over(
            f"results/strata/{FITTED}.csv", models=FIGURE_MODELS, seeds=first_seed
        ),
    output:
        table="results/strata.csv",
    log:
        "results/logs/collect_strata.log",
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        library=LIBRARY,
    script:
        "../scripts/collect_strata.py"


rule align:
    input:
        manifest="results/data/{dataset}/manifest.csv",
        tokens="results/embeddings/{dataset}/{embedding}/test.h5",
        models=beside(MODEL_FILE, RUN.alignment_models, seeds_of),
    output:
        table="results/alignment/{dataset}/{embedding}.csv",
        png=report(
            "results/alignment/{dataset}/{embedding}.png",
            caption="../report/alignment.rst",
            category="Figures",
            subcategory="{dataset}, {embedding}",
            labels={"figure": "alignment"},
        ),
        pdf="results/alignment/{dataset}/{embedding}.pdf",
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
        library=LIBRARY,
    script:
        "../scripts/align.py"
