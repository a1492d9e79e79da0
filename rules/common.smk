# Functions only: what the configuration asks for, as paths. No rules here.
import os
import shlex
import subprocess
import sys
from pathlib import Path

from snakemake.utils import validate

sys.path.insert(0, str(Path(workflow.basedir, "scripts")))
from dinodp.families import model_options
from dinodp.jobs.provenance import digest_of_files


def validate_config():
    """Check the configuration and fill in defaults, or one sentence that names the key and what is allowed."""
    try:
        validate(config, Path(workflow.basedir, "config/schemas/config.schema.yaml"))
    except WorkflowError as error:
        wrong = error.__context__
        key = ".".join(map(str, wrong.absolute_path)) or "the top level"
        raise WorkflowError(
            f"Configuration, {key}: {wrong.message}. Every key is in config/README.md."
        ) from None


validate_config()


# A parameter of every rule, so that a changed module makes anew what it had made.
LIBRARY = digest_of_files(Path(workflow.basedir, "scripts/dinodp").rglob("*.py"))
RUN = config["run"]
FIGURE_FORMATS = ["png", "pdf"]
TABLE_FORMATS = ["csv", "md", "tex"]


# What a job that uses the backbone or a model asks for: a GPU only where the run computes on one.
GPU = 1 if RUN["device"] == "cuda" else 0
TORCH = "../envs/torch-cuda.yaml" if GPU else "../envs/torch.yaml"


def growing(amount):
    """A resource that grows with the attempt: a job that ran out of it is retried with more (`--retries`)."""
    return lambda wildcards, attempt: amount * attempt


def entry(kind, name, key=None):
    """The catalog entry of a name under run.``key``, or one sentence that lists the names that exist."""
    if name not in config[kind]:
        known = ", ".join(sorted(config[kind]))
        raise WorkflowError(
            f"Unknown name '{name}' under run.{key or kind}: the catalog (config/catalog.yaml) has {known}."
        )
    return config[kind][name]


def archive_of(dataset):
    """The archive that a data set comes from: none where the user's own copy lies at its root."""
    options = entry("datasets", dataset)
    source, root = options.get("archive"), options.get("root")
    if source is None or (root and Path(root).exists()):
        return None
    entry("archives", source["name"])
    return source


def unpacked_archive(wildcards):
    source = archive_of(wildcards.dataset)
    return [] if source is None else f"results/archives/{source['name']}/unpacked.txt"


def reader_options(wildcards):
    """What the reader of a data set is told: its entry, without the keys of other stages."""
    options = dict(entry("datasets", wildcards.dataset))
    if source := archive_of(wildcards.dataset):
        options["root"] = f"data/archives/{source['name']}/{source['member']}"
    return {
        key: value
        for key, value in options.items()
        if key not in ("archive", "expect", "accept")
    }


def check_names():
    """Every name of the run is one of the catalog; models that are compared are models of the run."""
    for kind in ("datasets", "embeddings", "models"):
        for name in RUN[kind]:
            entry(kind, name)
    entry("models", RUN["baseline"], "baseline")
    protocols = RUN.get("protocols", {})
    named = {key: RUN.get(key, []) for key in ("figure_models", "alignment_models")}
    named["protocols"] = [options["model"] for options in protocols.values()]
    for key, names in named.items():
        for name in names:
            if name not in RUN["models"]:
                raise WorkflowError(
                    f"run.{key} names the model '{name}', which is not among run.models: {', '.join(RUN['models'])}."
                )


check_names()


def model_labels(model):
    return model_options(entry("models", model)).labels()


def is_random(model):
    """Whether a model depends on the seed: not a bank of all training images, one Gaussian, or the oracle."""
    options = entry("models", model)
    if options["family"] == "memory_bank":
        return bool(options.get("shots") or options.get("coreset_fraction"))
    return options["family"] != "gaussian" and options["scores"] != ["oracle"]


def fit_processes(wildcards):
    """Processes that share one fit: a mixture can be shared, a memory bank has nothing to fit."""
    family = entry("models", wildcards.model)["family"]
    return RUN["processes"] if family in ("dpmm", "gaussian_mixture") else 1


def stored_mib(path):
    """MiB of an embeddings file and its shards; 0 until there is one (a job asks again when it can start)."""
    files = [Path(path), *Path(path).with_suffix("").glob("shard-*.h5")]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def cached_mib(*paths):
    """MiB of embeddings that a process keeps: with run.cache `memory`, all of these files."""
    return sum(map(stored_mib, paths)) if RUN["cache"] == "memory" else 0


def coreset_mib(wildcards, train):
    """MiB on the way to a coreset: the training embeddings (float16) as float32, and once more to join them."""
    chosen = entry("models", wildcards.model).get("coreset_fraction")
    return 4 * stored_mib(train) if chosen else 0


def fitting_memory(wildcards, input, attempt):
    """MiB: each process of a fit (run.processes) holds as much."""
    held = cached_mib(input.train, input.valid) + coreset_mib(wildcards, input.train)
    return attempt * fit_processes(wildcards) * int(6000 + held)


def scoring_memory(wildcards, input, attempt):
    """MiB: a bank is held in memory up to a size (bank_memory_gib; above it is streamed)."""
    options = entry("models", wildcards.model)
    if options["family"] != "memory_bank":
        return attempt * 6000
    bank = 1024 * options.get("bank_memory_gib", 4) + cached_mib(input.train)
    return attempt * int(6000 + bank + coreset_mib(wildcards, input.train))


def seeds_of(model):
    return RUN["seeds"] if is_random(model) else RUN["seeds"][:1]


def first_seed(model):
    return seeds_of(model)[:1]


def over(
    pattern,
    datasets=RUN["datasets"],
    embeddings=RUN["embeddings"],
    models=RUN["models"],
    seeds=seeds_of,
):
    """A pattern over data sets, embeddings, models and the seeds of each model."""
    return [
        pattern.format(dataset=dataset, embedding=embedding, model=model, seed=seed)
        for dataset in datasets
        for embedding in embeddings
        for model in models
        for seed in seeds(model)
    ]


def beside(pattern, models, seeds):
    """A pattern over models and their seeds, for the data set and the embedding of a job."""
    return lambda wildcards: over(
        pattern, [wildcards.dataset], [wildcards.embedding], models, seeds
    )


def shards_of(pattern):
    """The paths of all shards (run.shards) of a pattern with {shard}; its other wildcards stay."""
    count = RUN["shards"]
    names = [f"shard-{index}-of-{count}" for index in range(count)]
    return [pattern.replace("{shard}", name) for name in names]


def memory_banks():
    """The models of the run whose search is worth several jobs."""
    return [
        model
        for model in RUN["models"]
        if entry("models", model)["family"] == "memory_bank"
    ]


FITTED = "{dataset}/{embedding}/{model}/seed-{seed}"
MODEL_FILE = f"results/models/{FITTED}.h5"
TEST_SCORES = f"results/scores/{FITTED}/test.h5"
VALID_SCORES = f"results/scores/{FITTED}/valid.h5"
METRICS_FILE = f"results/metrics/{FITTED}.json"
CURVES_FILE = f"results/curves/{FITTED}.h5"
FIGURE_MODELS = RUN.get("figure_models", RUN["models"])
# What decides how scores are evaluated: a change of it evaluates anew.
EVALUATED = {
    key: RUN[key]
    for key in (
        "mask_rules",
        "mask_size",
        "smoothing_sigma",
        "image_score_fraction",
        "threshold_maps",
        "bootstrap_resamples",
    )
    if key in RUN
}


def alignment_files(extension):
    """One per data set and embedding; none where the run names no models for it."""
    return expand(
        f"results/alignment/{{dataset}}/{{embedding}}.{extension}",
        dataset=RUN["datasets"] if RUN["alignment_models"] else [],
        embedding=RUN["embeddings"],
    )


def all_tables():
    return expand(
        "results/tables/{table}.{ext}", table=RUN["tables"], ext=TABLE_FORMATS
    )


def all_figures(*formats):
    return expand(
        "results/figures/{dataset}/{embedding}/{figure}.{ext}",
        dataset=RUN["datasets"],
        embedding=RUN["embeddings"],
        figure=RUN["figures"],
        ext=formats or FIGURE_FORMATS,
    )


def report_templates():
    folder = Path(workflow.basedir, "scripts/dinodp/report/templates")
    return sorted(map(str, folder.iterdir()))


def used_config():
    """The run and the catalog entries that it names: what the report says was configured."""
    kinds = ("datasets", "embeddings", "models")
    used = {kind: {name: config[kind][name] for name in RUN[kind]} for kind in kinds}
    return {"run": dict(RUN), **used}


def command_line():
    """The command that makes this run again; of an option that is given twice Snakemake takes the last."""
    files = [os.path.relpath(path, workflow.basedir) for path in workflow.configfiles]
    named = [path for path in dict.fromkeys(files) if Path(path).name != "catalog.yaml"]
    values = [
        f"{key}={value}" for key, value in workflow.config_settings.config.items()
    ]
    options = ["--configfile", *named] if named else []
    options += ["--config", *values] if values else []
    return shlex.join(["snakemake", "--cores", "2", *options])


def git(*arguments):
    """What a git command on the code prints; None where git, or a repository, is missing."""
    command = ["git", "-C", str(workflow.basedir), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def git_commit():
    """The commit of the code, and whether files differ from it; "unknown" where there is no repository."""
    commit = git("rev-parse", "HEAD")
    changed = ", with changes" if git("status", "--porcelain") else ""
    return commit + changed if commit else "unknown"
