rule distill_backbone:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        accepted=places.ACCEPTED,
    output:
        student=places.STUDENT_FILE,
        weights=places.STUDENT_WEIGHTS,
        cost=places.STUDENT_COST,
    log:
        "results/logs/distill_backbone/{dataset}/{embedding}.log",
    conda:
        TORCH
    threads: 2
    resources:
        gpu=GPU,
        mem_mb=growing(6000),
        runtime=growing(240),
    params:
        options=lambda wildcards: CONFIGURATION.embeddings[
            wildcards.embedding
        ].decisive(),
        training=RUN.distillation.plain(),
        device=uncompared(RUN.device),
        library=code_of("distill_backbone"),
    script:
        "../scripts/distill_backbone.py"


rule embed:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        accepted=places.ACCEPTED,
        student=student_of,
    output:
        tokens=places.TOKENS,
        cost=places.TOKENS_COST,
    log:
        "results/logs/embed/{dataset}/{embedding}/{split}.log",
    conda:
        TORCH
    threads: 2
    resources:
        gpu=GPU,
        mem_mb=growing(6000),
        runtime=growing(240),
    params:
        options=lambda wildcards: CONFIGURATION.embeddings[
            wildcards.embedding
        ].decisive(),
        batch_size=uncompared(batch_size),
        device=uncompared(RUN.device),
        library=code_of("embed"),
    script:
        "../scripts/embed.py"
