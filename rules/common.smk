# Functions only: what the configuration asks for, as paths. No rules here.
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

if Path(HERE, "scripts/dinodp").is_dir():  # a checkout
    sys.path.insert(0, str(Path(HERE, "scripts")))
try:
    from dinodp.configuration import Configuration
except ModuleNotFoundError as error:
    raise WorkflowError(
        f"The package dinodp is needed where {HERE} is read, but there is no {error.name}: pip install it."
    ) from None
from dinodp.configuration.asked import asked_for
from dinodp.configuration.merging import over_catalog
from dinodp.datasets.walking import listing
from dinodp.errors import InputError
from dinodp.jobs.closure import CACHE, LIBRARY, Closures
from dinodp.jobs.devices import ACCELERATORS, gpu_is_here
from dinodp.jobs.files import ORIGIN_SUFFIX
from dinodp.jobs.snakefile import INSTALLED, ROOT
from dinodp.options import places


def read_configuration():
    """The configuration as types, or one sentence. Jobs see it as plain values in which defaults are filled in."""
    try:
        configuration = Configuration.of(config)
    except InputError as error:
        raise WorkflowError(str(error)) from None
    config.update(configuration.plain())
    return configuration


config = over_catalog(config)
CONFIGURATION = read_configuration()
RUN = CONFIGURATION.run


CLOSURES = Closures(LIBRARY, CACHE)
RUN_TABLES = [
    places.METRICS_TABLE,
    places.COSTS_TABLE,
    places.INTERVALS,
    places.DIFFERENCES,
    places.STRATA_TABLE,
]
FIGURE_FORMATS = ["png", "pdf"]
TABLE_FORMATS = ["csv", "md", "tex"]


def check_device():
    """A GPU that is insisted on must be here, unless jobs run elsewhere or environments are made for elsewhere."""
    elsewhere = (
        workflow.resource_settings.nodes is not None
        or "CONDA_OVERRIDE_CUDA" in os.environ
    )
    if (
        workflow.is_main_process
        and RUN.device == "cuda"
        and not (elsewhere or gpu_is_here())
    ):
        raise WorkflowError(
            "Configuration, run.device: it is cuda, but this machine shows no NVIDIA GPU; set it to auto or cpu."
        )


check_device()


# What a job that uses the backbone or a model asks for: a GPU only where the run computes on one. `auto` is decided by
# the machine that builds the DAG; where that has no GPU but those of the jobs have, say `cuda` (docs/cluster.md).
CUDA = RUN.device == "cuda" or (RUN.device == "auto" and gpu_is_here())
GPU = 1 if CUDA or RUN.device in ACCELERATORS else 0
TORCH = "../envs/torch-cuda.yaml" if CUDA else "../envs/torch.yaml"


def code_of(script):
    """A parameter of every rule: a changed module makes anew what scripts that run it had made, and nothing else."""
    return CLOSURES.digest(ROOT / f"scripts/{script}.py")


def uncompared(value):
    """A parameter that changes no result: Snakemake does not compare what is made from a job's input."""
    return lambda wildcards, input: value(wildcards) if callable(value) else value


def growing(amount):
    """A resource that grows with the attempt: a job that ran out of it is retried with more (`--retries`)."""
    return lambda wildcards, attempt: amount * attempt


def unpacked_archive(wildcards):
    archive = CONFIGURATION.archive_of(wildcards.dataset)
    return [] if archive is None else places.fill(places.UNPACKED, archive=archive.name)


def reader_options(wildcards):
    """What the reader of a data set is told: its entry, without the keys of other stages."""
    options = CONFIGURATION.datasets[wildcards.dataset].reading()
    if archive := CONFIGURATION.archive_of(wildcards.dataset):
        options["root"] = f"data/archives/{archive.name}/{archive.member}"
    return options


@cache
def data_at(dataset):
    """A digest of names, sizes and times of a data set's files; an archive is as it was unpacked."""
    options = CONFIGURATION.datasets[dataset]
    if CONFIGURATION.archive_of(dataset):
        return ""
    return listing(options.places(), options.READS, without="results")


def metadata_of(wildcards):
    """The table of metadata of a data set, where it has one."""
    path = CONFIGURATION.datasets[wildcards.dataset].metadata
    return [] if path is None else [path]


def maps_at(wildcards):
    """A digest of names, sizes and times of the files that a model is given, such as the maps of another tool."""
    return listing(CONFIGURATION.models[wildcards.model].places())


def published_of(dataset):
    """What is published of a data set, as plain values; empty where nothing is."""
    expected = CONFIGURATION.datasets[dataset].expect
    return {} if expected is None else expected.plain()


def batch_size(wildcards):
    """Images that the backbone sees at once."""
    return CONFIGURATION.embeddings[wildcards.embedding].batch_size


def student_files(embedding, *patterns):
    """The files of the student that an embedding is computed by, where the run trains it."""
    options = CONFIGURATION.embeddings[embedding]
    made = getattr(options, "trained_on", lambda: None)()
    if made is None:
        return []
    return [places.fill(path, dataset=made[0], embedding=made[1]) for path in patterns]


def student_of(wildcards):
    return student_files(
        wildcards.embedding, places.STUDENT_FILE, places.STUDENT_WEIGHTS
    )


def run_students(pattern):
    """Of the students of the run, each once."""
    found = [path for name in RUN.embeddings for path in student_files(name, pattern)]
    return list(dict.fromkeys(found))


def grid_of(wildcards):
    """The patch grid [rows, columns] on which models see the embeddings; None: the backbone's own."""
    grid = CONFIGURATION.embeddings[wildcards.embedding].grid
    return None if grid is None else list(grid)


def fit_processes(wildcards):
    """Processes that share one fit, where it can be shared."""
    return RUN.processes if CONFIGURATION.models[wildcards.model].SHARES_FIT else 1


def stored_mib(path):
    """MiB of an embeddings file and its shards; 0 until there is one (a job asks again when it can start)."""
    files = [Path(path), *Path(path).with_suffix("").glob("shard-*.h5")]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def cached_mib(*paths):
    """MiB of embeddings that a process keeps: with run.cache `memory`, all of these files."""
    return sum(map(stored_mib, paths)) if RUN.cache == "memory" else 0


def fitting_memory(wildcards, input, attempt):
    """MiB: each process of a fit (run.processes) holds as much."""
    model = CONFIGURATION.models[wildcards.model]
    held = model.fitting_mib(stored_mib(input.train))
    held += cached_mib(input.train, input.valid)
    return attempt * fit_processes(wildcards) * int(held)


def scoring_memory(wildcards, input, attempt):
    """MiB: a model that searches the training split holds it where it is cached."""
    model = CONFIGURATION.models[wildcards.model]
    cached = cached_mib(input.train) if model.SEARCHES_TRAIN else 0
    return attempt * int(model.scoring_mib(stored_mib(input.train)) + cached)


def seeds_of(model):
    return RUN.seeds if CONFIGURATION.models[model].is_random else RUN.seeds[:1]


def first_seed(model):
    return seeds_of(model)[:1]


def over(
    pattern,
    datasets=RUN.datasets,
    embeddings=RUN.embeddings,
    models=RUN.models,
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
    """The paths of all shards (run.shards) of a pattern; its other wildcards stay."""
    count = RUN.shards
    return [places.fill(pattern, shard=index, shards=count) for index in range(count)]


def searching_models():
    """The models of the run whose search is worth several jobs."""
    return [name for name in RUN.models if CONFIGURATION.models[name].SEARCHES_TRAIN]


def origin(tables):
    """The file beside a CSV table, or beside each of several, that says what it was made from."""
    if isinstance(tables, str):
        return tables + ORIGIN_SUFFIX
    return [table + ORIGIN_SUFFIX for table in tables]


MODEL_FILE = places.MODEL
TEST_SCORES = places.fill(places.SCORES, split="test")
VALID_SCORES = places.fill(places.SCORES, split="valid")
METRICS_FILE = places.METRICS
CURVES_FILE = places.CURVES
FIGURE_MODELS = list(RUN.figure_models or RUN.models)
# What decides how scores are evaluated, and how values are read: a change of it makes both anew.
EVALUATED = (
    "mask_rules",
    "mask_size",
    "smoothing_sigma",
    "image_score_fraction",
    "image_score_sigma",
    "lesions",
    "bootstrap_resamples",
)
COMPARED = (
    "mask_rules",
    "mask_size",
    "smoothing_sigma",
    "threshold_maps",
    "aupr",
    "published_embedding",
    "published_as",
    "published_sources",
)


def protocol(*keys):
    """These choices of the run's protocol, for `Protocol.of`."""
    choices = RUN.plain()
    return {key: choices[key] for key in keys if key in choices}


# What jobs are told of the configuration: each result says what it was made for, and readers compare.
config["asked"] = asked_for(CONFIGURATION, protocol(*EVALUATED), protocol(*COMPARED))


def alignment_files(extension):
    """One per data set and embedding; none where the run names no models for it."""
    return expand(
        places.fill(places.ALIGNMENT, extension=extension),
        dataset=RUN.datasets if RUN.alignment_models else [],
        embedding=RUN.embeddings,
    )


def all_tables(*formats):
    return expand(places.TABLE, table=RUN.tables, extension=formats or TABLE_FORMATS)


def all_figures(*formats):
    return expand(
        places.FIGURE,
        dataset=RUN.datasets,
        embedding=RUN.embeddings,
        figure=RUN.figures,
        extension=formats or FIGURE_FORMATS,
    )


def shown_path(path):
    """A file of the project, or of the working directory, by its place there."""
    folders = [
        folder for folder in (ROOT, Path.cwd()) if Path(path).is_relative_to(folder)
    ]
    return os.path.relpath(path, folders[0]) if folders else path


def command_line():
    """The command that makes this run again; of an option that is given twice Snakemake takes the last."""
    named = dict.fromkeys(map(shown_path, workflow.configfiles))
    values = [
        f"{key}={value}" for key, value in workflow.config_settings.config.items()
    ]
    options = ["--configfile", *named] if named else []
    options += ["--config", *values] if values else []
    program = ["dinodp", "benchmark"] if ROOT == INSTALLED else ["snakemake"]
    return shlex.join([*program, "--cores", "2", *options])


def git(*arguments):
    """What a git command on the code prints; None where git, or a repository, is missing."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def git_commit():
    """The commit of the code, and whether files differ from it; "unknown" where there is no repository."""
    commit = (
        git("rev-parse", "HEAD") if git("ls-files", "Snakefile") else None
    )  # not one around what is installed
    changed = ", with changes" if git("status", "--porcelain") else ""
    return commit + changed if commit else "unknown"
