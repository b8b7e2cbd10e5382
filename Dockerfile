# kvserver's image.
#
#   make image
#   docker run -d --name kv -p 127.0.0.1:6379:6379 -v kv:/data kvserver --requirepass secret
#
# Arguments that begin with `-`, or a first one that ends in `.conf`, go to kvserver; anything else
# is run instead of it (see docker/entrypoint.sh). Data, and nothing else, is in /data.
#
# The server binds 0.0.0.0, for in a container 127.0.0.1 is reached by nobody. protected-mode stays
# on: without a password, clients from outside the container are refused. Set `--requirepass`, or
# `--protected-mode no` where the network in front of the container lets only friends in.
#
# BASE is a Debian with python3 >= 3.11 and its venv module; both stages use it, because the
# virtual environment refers to its interpreter.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
WORKDIR /src
# The compiler is for setup.py; the image of python has Python's headers, Debian's needs a package.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
        $([ -x /usr/local/bin/python3 ] || echo python3-dev)
COPY LICENSE README.md pyproject.toml setup.py ./
COPY kvserver ./kvserver
RUN python3 -m venv /opt/kvserver \
    && /opt/kvserver/bin/python -m pip install --no-cache-dir . \
    && /opt/kvserver/bin/python -P -c 'import kvserver; assert kvserver.COMPILED' \
    && /opt/kvserver/bin/python -m pip uninstall -y pip setuptools

FROM ${BASE}
# tini is PID 1: it passes signals on and reaps.
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
RUN groupadd --gid 6379 kvserver \
    && useradd --uid 6379 --gid 6379 --home-dir /data --no-create-home kvserver \
    && install -d -o 6379 -g 6379 -m 0750 /data
COPY --from=build /opt/kvserver /opt/kvserver
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/entrypoint.sh
ENV PATH=/opt/kvserver/bin:$PATH
# By number, so that an orchestrator can see that it isn't root.
USER 6379:6379
WORKDIR /data
VOLUME /data
EXPOSE 6379
# A server that asks for a password is healthy. Set KVSERVER_PORT if `--port` is not 6379.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-c", "\
import os, socket\n\
with socket.create_connection(('127.0.0.1', int(os.environ.get('KVSERVER_PORT', 6379))), 2) as s:\n\
    s.sendall(b'PING\\r\\n')\n\
    assert s.recv(64).startswith((b'+PONG', b'-NOAUTH'))\n\
"]
ENTRYPOINT ["tini", "--", "entrypoint.sh"]
