# elasticd alone, without a shell or a package manager: for a sidecar beside a frontend's own container.
#   docker build -t elasticd .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked && install -D target/release/elasticd /root-of-image/usr/bin/elasticd
# Kept as empty volumes' first content: their owner is the user below.
RUN install -d -o 65532 -g 65532 -m 0755 /root-of-image/run/elasticd \
    && install -d -o 65532 -g 65532 -m 0700 /root-of-image/var/lib/elasticd

# The C library, libgcc and certificate authorities, and nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /root-of-image/ /
# Run it with the user of the frontend's container, whose process it signals; and with --read-only: it writes to these
# two volumes and to the directories of its outputs alone.
USER 65532:65532
VOLUME ["/run/elasticd", "/var/lib/elasticd"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["/usr/bin/elasticd", "status"]
# One arena for all threads: a third less memory with a thousand backends, and no slower.
ENV MALLOC_ARENA_MAX=1
ENTRYPOINT ["/usr/bin/elasticd"]
CMD ["run"]
