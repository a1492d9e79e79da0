# The pipeline without conda: Snakemake, the package and all that constraints.txt pins (docs/cluster.md).
FROM python:3.11-slim-bookworm
WORKDIR /opt/dinodp
COPY . .
RUN pip install --no-cache-dir torch==2.13.0 \
 && pip install --no-cache-dir --constraint constraints.txt --editable ".[workflow,dicom]"
CMD ["snakemake", "--help"]
