# The images for those who prefer a container engine; `cargo xtask images` makes the same without one, with
# bills of materials and one digest for one commit.
#
#   docker build --target mesh-proxy   -t docker.io/mini-mesh/mesh-proxy:0.1.0   .
#   docker build --target mesh-control -t docker.io/mini-mesh/mesh-control:0.1.0 .
#   docker build --target shop         -t docker.io/mini-mesh/shop:0.1.0         .
FROM rust:1.95-bookworm AS build
WORKDIR /mini-mesh
COPY . .
# A target of its own, so that build scripts and procedural macros are linked as usual.
RUN target="$(uname -m)-unknown-linux-gnu" \
    && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --bins --target "$target" \
        --package mesh-proxy --package mesh-control --package shop \
    && mkdir /out && cp "target/$target/release/mesh-proxy" "target/$target/release/mesh-control" \
        "target/$target/release/shop" /out/

FROM scratch AS mesh-proxy
COPY --from=build /out/mesh-proxy /mesh-proxy
USER 1337:1337
ENTRYPOINT ["/mesh-proxy"]

FROM scratch AS shop
COPY --from=build /out/shop /shop
USER 65532:65532
ENTRYPOINT ["/shop"]

FROM scratch AS mesh-control
COPY --from=build /out/mesh-control /mesh-control
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/mesh-control"]
