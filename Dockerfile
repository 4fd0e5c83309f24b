# The image on the tutorial's base: ACPT for Ubuntu 20.04, whose torch is too old and is replaced.
# Dockerfile.ubuntu2204 is the recommended one; tests/unit/test_image_files.py holds the two together.
#
#   make image DOCKERFILE=Dockerfile        or: docker build -t tunecask .
#
# docs/image.md describes the build arguments.
#
# Stages are named by arguments, and a release of the base has one version of a system package:
# hadolint global ignore=DL3006,DL3008
ARG BASE_IMAGE=mcr.microsoft.com/aifx/acpt/stable-ubuntu2004-cu124-py310-torch241:biweekly.202410.2
ARG ASSETS_IMAGE=mcr.microsoft.com/azureml/o16n-base/python-assets:20230419.v1
ARG INFERENCE=no
ARG OPENSSH=no
ARG FLASH_ATTN=no

# Wheels that are preferred to the registry's, none by default: --build-context wheels=FOLDER
FROM scratch AS wheels

FROM ${ASSETS_IMAGE} AS assets

FROM ${BASE_IMAGE} AS base
# hadolint ignore=DL3002
USER 0
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update \
    && apt-get install -y --no-install-recommends libtcmalloc-minimal4

# The installer, which is no part of the image.
FROM base AS uv
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    python -m pip install --no-deps --target /opt/uv "$(grep '^uv==' /requirements.lock)"

FROM base AS runtime
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_SYSTEM_PYTHON=1
WORKDIR /opt/tunecask
# The base's torch is built for its CUDA: it stays when it is one that torchtune and torchao were tried with.
ARG LIFT_TORCH=yes
COPY pyproject.toml requirements.lock requirements-torch.txt ./
RUN --mount=type=bind,source=scripts/base_torch.py,target=/tmp/base_torch.py \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    python /tmp/base_torch.py pyproject.toml \
    || { [ "$LIFT_TORCH" = yes ] && python -m pip install --find-links /wheels \
        -c requirements.lock -r requirements-torch.txt setuptools; }; \
    { python /tmp/base_torch.py pyproject.toml && cat requirements.lock; } >constraints.txt
RUN --mount=type=bind,from=uv,source=/opt/uv/bin/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv,sharing=locked --mount=type=tmpfs,target=/tmp \
    uv pip install --constraint constraints.txt --build-constraint requirements.lock \
        --requirement pyproject.toml --extra azure --extra mlflow --extra near-duplicates --extra tensorboard
# What is installed on top of this image keeps the versions that were tested together.
ENV PIP_CONSTRAINT=/opt/tunecask/constraints.txt UV_CONSTRAINT=/opt/tunecask/constraints.txt
COPY LICENSE ./
COPY recipes recipes
COPY entrypoint entrypoint
COPY --chmod=755 scripts/as-owner /usr/local/bin/
RUN --mount=type=bind,from=uv,source=/opt/uv/bin/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv,sharing=locked --mount=type=tmpfs,target=/tmp \
    uv pip install --no-deps --build-constraint requirements.lock --editable . \
    && rm -rf build \
    && python -m compileall -q entrypoint \
    && install -d -m 1777 /cache /workspace
# Any user may run the image: nothing is kept in a home folder.
ENV TRAIN_CACHE=/cache HF_HOME=/cache/huggingface TORCHINDUCTOR_CACHE_DIR=/tmp/inductor TRITON_CACHE_DIR=/tmp/triton
WORKDIR /workspace
CMD ["train", "--help"]

# Serving on Azure ML, as the tutorial's image has it: nginx, rsyslog and services under runit.
FROM runtime AS inference-no
FROM runtime AS inference-yes
COPY --from=assets /artifacts /var/
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    /var/requirements/install_system_requirements.sh \
    && cp /var/configuration/rsyslog.conf /etc/rsyslog.conf \
    && cp /var/configuration/nginx.conf /etc/nginx/sites-available/app \
    && ln -sf /etc/nginx/sites-available/app /etc/nginx/sites-enabled/app \
    && rm -f /etc/nginx/sites-enabled/default
# The server wants other releases of some packages than the lock has: it gets them beside the others.
RUN --mount=type=bind,from=uv,source=/opt/uv/bin/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv,sharing=locked \
    python=$(command -v python) \
    && uv venv --system-site-packages --python "$python" /opt/serving \
    && UV_CONSTRAINT='' uv pip install --python /opt/serving/bin/python \
        azureml-inference-server-http==1.5.1 azure-monitor-opentelemetry \
    && ln -s /opt/serving/bin/azmlinfsrv /usr/local/bin/
ENV SVDIR=/var/runit WORKER_TIMEOUT=400
EXPOSE 5001 8883 8888
CMD ["runsvdir", "/var/runit"]

# For launchers that log in to the other nodes, such as DeepSpeed's.
FROM inference-${INFERENCE} AS openssh-no
FROM inference-${INFERENCE} AS openssh-yes
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update \
    && apt-get install -y --no-install-recommends openssh-client openssh-server

# Compiled against the image's torch, which takes CUDA's compiler and up to an hour.
FROM openssh-${OPENSSH} AS flash-attn-no
FROM openssh-${OPENSSH} AS flash-attn-yes
ARG FLASH_ATTN_VERSION=2.8.3
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    MAX_JOBS=4 python -m pip install --no-build-isolation "flash-attn==${FLASH_ATTN_VERSION}"

# The list of all Python packages, in CycloneDX's format: --target sbom --output FOLDER
FROM flash-attn-${FLASH_ATTN} AS inventory
ARG CYCLONEDX_VERSION=7.5.0
RUN --mount=type=bind,from=uv,source=/opt/uv/bin/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv,sharing=locked \
    python=$(command -v python) \
    && uv venv --python "$python" /opt/sbom \
    && UV_CONSTRAINT='' uv pip install --python /opt/sbom/bin/python "cyclonedx-bom==${CYCLONEDX_VERSION}" \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible -o /tunecask.cdx.json "$python"
FROM scratch AS sbom
COPY --from=inventory /tunecask.cdx.json /

# compose.yaml's dashboards: they look at runs and take no part in them. MLflow's server wants other releases of
# some packages than the lock has, so only the two themselves are those that runs are tested with.
FROM base AS dashboards
WORKDIR /opt/dashboards
RUN --mount=type=bind,from=uv,source=/opt/uv/bin/uv,target=/usr/local/bin/uv \
    --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    --mount=type=cache,target=/root/.cache/uv,sharing=locked \
    uv venv --python "$(command -v python)" . \
    && uv pip install --python bin/python --link-mode copy \
        "$(grep '^tensorboard==' /requirements.lock)" "mlflow==$(sed -n 's/^mlflow-skinny==//p' /requirements.lock)"
ENV PATH=/opt/dashboards/bin:$PATH
RUN install -d -m 1777 /mlflow

# The image with what the project's tests need; they are mounted.
FROM flash-attn-${FLASH_ATTN} AS test
RUN --mount=type=bind,from=uv,source=/opt/uv/bin/uv,target=/usr/local/bin/uv \
    --mount=type=cache,target=/root/.cache/uv,sharing=locked \
    uv pip install pytest pytest-xdist hypothesis datasketch setuptools

FROM flash-attn-${FLASH_ATTN} AS tunecask
ARG BASE_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
ENV TRAIN_IMAGE=tunecask:${VERSION}@${REVISION}
LABEL org.opencontainers.image.title=tunecask \
    org.opencontainers.image.description="Fine-tunes, evaluates and quantizes language models" \
    org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.base.name=${BASE_IMAGE} \
    org.opencontainers.image.source=${SOURCE} \
    org.opencontainers.image.version=${VERSION} \
    org.opencontainers.image.revision=${REVISION}
