# The relay, web and worker, in one container:
#
#   docker build -t relay .
#   docker run -v ./relay.yaml:/etc/relay/relay.yaml:ro -v relay:/var/lib/relay -p 127.0.0.1:8080:8080 relay
#
# Secrets come from the environment (`-e`, `--env-file`) or from mounted files; none is in the image.
# `docker stop -t 30` gives it the time to drain that `server.drain_seconds` grants.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY relay relay
COPY providers providers
COPY tests/providers tests/providers
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist . \
    && python -m venv --without-pip /opt/relay \
    && pip --python /opt/relay/bin/python install --no-cache-dir --constraint constraints.txt \
        "$(ls /dist/*.whl)[postgres]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/relay --create-home relay
COPY --from=build /opt/relay /opt/relay
ENV PATH=/opt/relay/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RELAY_CONFIG=/etc/relay/relay.yaml
USER 10001
# A database without a path of its own, such as the default `sqlite:///relay.db`, is here.
WORKDIR /var/lib/relay
VOLUME /var/lib/relay
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["relay", "serve", "--bind", "0.0.0.0:8080"]
