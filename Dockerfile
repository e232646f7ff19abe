# The two programs in a small image; the consumer by default.
#   docker build -t livenps . && docker run livenps --help
FROM debian:13-slim AS build
COPY tests/install /src/tests/install
RUN /src/tests/install build && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_TESTING=OFF \
 && cmake --build /build && DESTDIR=/out cmake --install /build --prefix /usr --strip

FROM debian:13-slim
RUN apt-get update -q \
 && apt-get install -q -y --no-install-recommends librdkafka1 libhiredis1.1.0 libjansson4 libyaml-0-2 libssl3t64 zlib1g libjemalloc2 libmicrohttpd12t64 \
      ca-certificates \
 && rm -rf /var/lib/apt/lists/* && useradd --system --no-create-home --uid 10001 livenps
COPY --from=build /out/usr /usr
USER livenps
ENTRYPOINT ["livenps-consumer"]
CMD ["run"]
