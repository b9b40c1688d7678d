# Small, without root, with a health check. Build:  docker build -t gatekeeper .
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/gatekeeper
COPY pyproject.toml README.md LICENSE gateway.toml.example ./
COPY plans plans
COPY gatekeeper gatekeeper
RUN /opt/gatekeeper/bin/pip install --no-cache-dir .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin gatekeeper \
    && install -d -o gatekeeper -g gatekeeper -m 0750 /data
COPY --from=build /opt/gatekeeper /opt/gatekeeper
COPY gateway.toml.example /etc/gatekeeper/gateway.toml
COPY plans /etc/gatekeeper/plans
ENV PATH=/opt/gatekeeper/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PORT=8080 \
    GATEKEEPER_HOST=0.0.0.0 \
    DATABASE_URL=sqlite:////data/gatekeeper.sqlite
USER gatekeeper
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/healthz', timeout=2)"]
ENTRYPOINT ["gatekeeper"]
CMD ["serve", "--config", "/etc/gatekeeper/gateway.toml"]
