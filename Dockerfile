FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/headwater \
 && /opt/headwater/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock \
 && /opt/headwater/bin/pip install --no-cache-dir --no-build-isolation --no-deps .

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 10001 headwater && mkdir /data && chown headwater /data
COPY --from=build /opt/headwater /opt/headwater
USER headwater
WORKDIR /data
EXPOSE 9092 9180
# Inside a container the address must be told: --listener 0.0.0.0:9092@HOST:9092
ENTRYPOINT ["/opt/headwater/bin/headwater"]
CMD ["start", "--store", "file:///data", "--listener", "0.0.0.0:9092@localhost:9092", "--http", "0.0.0.0:9180"]
