# Both programs in a small image, as a user that is not root; the consumer by default.
#   docker build -t livenps . && docker run livenps --help
# The base is pinned; SOURCE_DATE_EPOCH (seconds since 1970) makes the package in it the same from the same sources. What
# apt installs is what Debian 13 has on that day.
ARG BASE=debian:13.1-slim

FROM ${BASE} AS build
COPY tests/install /src/tests/install
RUN apt-get update -q && apt-get install -q -y --no-install-recommends dpkg-dev file \
 && /src/tests/install build && rm -rf /var/lib/apt/lists/*
COPY . /src
ARG SOURCE_DATE_EPOCH=0
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_TESTING=OFF \
 && cmake --build /build && cpack --config /build/CPackConfig.cmake -B /package && mv /package/livenps_*.deb /livenps.deb

FROM ${BASE}
# The package knows which libraries it needs. What apt leaves behind differs from day to day.
COPY --from=build /livenps.deb /tmp/livenps.deb
RUN apt-get update -q && apt-get install -q -y --no-install-recommends /tmp/livenps.deb ca-certificates \
 && rm -rf /tmp/livenps.deb /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/cache/debconf/*-old /var/log/* \
 && useradd --uid 10001 --no-create-home --no-log-init --shell /usr/sbin/nologin livenps
USER 10001
ENTRYPOINT ["livenps-consumer"]
CMD ["run"]
