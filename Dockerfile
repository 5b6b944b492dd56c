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
EXPOSE 7433 6432 7306
STOPSIGNAL SIGTERM
ENTRYPOINT ["/curfew"]
CMD ["serve", "--config", "/etc/curfew/curfew.yaml"]
