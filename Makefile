PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
CORES ?= 2
SNAKEMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --cores $(CORES)

.PHONY: demo test coverage faults fuzz audit bench lint docs config format lock clean

demo: $(STAMP)  ## set up everything and run the demo, offline
	$(SNAKEMAKE) --quiet rules progress
	@cat results/summary.md
	@echo "Report: results/report.html   Tables: results/tables   Figures: results/figures   Metrics: results/metrics.csv"

# A file to a worker, so that the small run of the workflow tests is made once.
test: $(STAMP) lint  ## set up everything, then linters and tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

coverage: $(STAMP)  ## the tests again, and which lines and branches of the library they run (twice as long)
	rm -f .coverage .coverage.*
	COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/coverage run -m pytest -n 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

faults: $(STAMP)  ## hours: damages, flipped bits, full disks and kills of a small run; writes docs/reliability.md's table
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=scripts:tests $(BIN)/python tests/faults/faults.py

fuzz: $(STAMP)  ## 100,000 damaged files or 10 minutes for each reader of strangers' files (docs/reliability.md)
	PYTHONPATH=scripts:tests $(BIN)/python tests/fuzz/fuzz.py --count 100000 --seconds 600

audit: $(STAMP)  ## known vulnerabilities and licences of all packages, where the network allows
	$(BIN)/python tests/audit.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=scripts $(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/snakefmt --check Snakefile rules
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --lint

bench: $(STAMP)  ## a few ratios of speed, this run beside the committed baseline (docs/performance.md)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[workflow,test,bench]"
	$(BIN)/python benchmarks/small.py --threads 1

docs: $(STAMP)  ## the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

config: $(STAMP)  ## the page of all keys, config/README.md, from the types
	$(BIN)/python -m dinodp.configuration.page > config/README.md.new && mv config/README.md.new config/README.md

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

# torch first and by its exact version: the CPU wheel, not gigabytes of CUDA.
$(STAMP): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[workflow,test]"
	touch $(STAMP)

lock: $(STAMP)  ## write constraints.txt from the environment as it is
	$(BIN)/pip freeze --exclude-editable | sed -E 's/ @ .*//; s/[+]cpu//' > constraints.txt

clean:
	rm -rf .venv .snakemake results/[!R]*
