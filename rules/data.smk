rule download_archive:
    output:
        done=places.UNPACKED,
    log:
        "results/logs/download_archive/{archive}.log",
    localrule: True
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(720),
    params:
        options=lambda wildcards: CONFIGURATION.archives[wildcards.archive].plain(),
        folder="data/archives/{archive}",
        library=code_of("download_archive"),
    script:
        "../scripts/download_archive.py"


rule prepare_dataset:
    input:
        archive=unpacked_archive,
    output:
        manifest=places.MANIFEST,
        origin=origin(places.MANIFEST),
    log:
        "results/logs/prepare_dataset/{dataset}.log",
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        options=reader_options,
        data=lambda wildcards: data_at(wildcards.dataset),  # files that were added, replaced or removed
        library=code_of("prepare_dataset"),
    script:
        "../scripts/prepare_dataset.py"


rule verify_dataset:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
    output:
        report=places.fill(places.VERIFICATION, extension="json"),
        page=places.fill(places.VERIFICATION, extension="md"),
        checksums=places.CHECKSUMS,
        origin=origin(places.CHECKSUMS),
    log:
        "results/logs/verify_dataset/{dataset}.log",
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        expect=lambda wildcards: published_of(wildcards.dataset),
        library=code_of("verify_dataset"),
    script:
        "../scripts/verify_dataset.py"


rule accept_dataset:
    input:
        report=places.fill(places.VERIFICATION, extension="json"),
    output:
        accepted=places.ACCEPTED,
    log:
        "results/logs/accept_dataset/{dataset}.log",
    localrule: True
    conda:
        "../envs/data.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        accept=lambda wildcards: list(CONFIGURATION.datasets[wildcards.dataset].accept),
        library=code_of("accept_dataset"),
    script:
        "../scripts/accept_dataset.py"
