# The workflow, which notes its jobs as scripts see them, so that each can be run again by itself.
include: "Snakefile"


onstart:
    import pickle
    from pathlib import Path
    from snakemake.iocontainers import ResourceList, Snakemake

    recorded = [
        (
            str(Path(workflow.basedir, "scripts", Path(job.rule.script).name)),
            Snakemake(
                job.input,
                job.output,
                job.params,
                job.wildcards,
                job.threads,
                ResourceList(),
                job.log,
                config,
                job.rule.name,
                None,
                None,
            ),
        )
        for job in workflow.dag.jobs
        if job.rule.script
    ]
    Path("jobs.pickle").write_bytes(pickle.dumps(recorded))
