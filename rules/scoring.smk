rule score:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        model=places.MODEL,
        train=places.fill(places.TOKENS, split="train"),
        tokens=places.TOKENS,
    output:
        scores=places.SCORES,
        cost=places.SCORES_COST,
    log:
        "results/logs/score/{dataset}/{embedding}/{model}/seed-{seed}/{split}.log",
    conda:
        TORCH
    threads: 2
    resources:
        gpu=GPU,
        mem_mb=scoring_memory,
        runtime=growing(120),
    params:
        options=lambda wildcards: CONFIGURATION.models[wildcards.model].decisive(),
        grid=grid_of,
        device=uncompared(RUN.device),
        cache=uncompared(RUN.cache),
        image_score_fraction=RUN.image_score_fraction,
        image_score_sigma=RUN.image_score_sigma,
        maps=maps_at,  # of another tool: files that were added, replaced or removed
        library=code_of("score"),
    script:
        "../scripts/score.py"
