FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=docker
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/curfew ./cmd/curfew \
 && mkdir -p /out/data && cp /etc/ssl/certs/ca-certificates.crt /out/

# The binary is static and needs nothing: no shell, no libc, no package to keep up to date.
FROM scratch
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/curfew /curfew
COPY --from=build --chown=65532:65532 /out/data /var/lib/curfew
USER 65532:65532
VOLUME /var/lib/curfew
EXPOSE 7433 7434 6432 7306
# Ready or not, as ops: in the configuration says it; CURFEW_OPS says where, if not on 127.0.0.1:7434.
HEALTHCHECK --interval=10s --timeout=12s --start-period=30s CMD ["/curfew", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/curfew"]
CMD ["serve", "--config", "/etc/curfew/curfew.yaml"]
