# wsigen on CPUs.
#
#     docker build -t wsigen .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" wsigen generate slide.ome.tiff --class Tumor --size 4096x4096
#
# Slides and run directories are written to /data, the working directory.

FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/wsigen

# PyTorch first and alone: this layer is large and changes rarely.
COPY constraints.txt ./
RUN pip install -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch

COPY pyproject.toml README.md LICENSE ./
COPY wsigen ./wsigen
RUN pip install -c constraints.txt '.[cluster,evaluate,imagenet,s3]' \
    && useradd --create-home --uid 1000 wsigen \
    && mkdir /data && chown wsigen /data

# Never root; any other user may run it (--user), also one that the image does not know: hence HOME and USER.
USER 1000
ENV HOME=/tmp \
    USER=wsigen \
    OMP_NUM_THREADS=1

WORKDIR /data
ENTRYPOINT ["wsigen"]
CMD ["--help"]
