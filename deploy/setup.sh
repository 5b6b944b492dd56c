#!/bin/sh
# Makes, once, what the services of docker-compose.yml share: a CA, a certificate for each, their passwords.
set -eu
cd /shared
[ -e ready ] && exit 0
apk add --no-cache -q openssl

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
  -subj "/CN=Curfew example CA" -keyout ca.key -out ca.pem
certificate() { # certificate NAME UID DNS...
  name=$1; uid=$2; shift 2
  san=""
  for dns in "$@"; do san="$san,DNS:$dns"; done
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "${san#,},IP:127.0.0.1" > "$name.ext"
  openssl x509 -req -days 825 -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -extfile "$name.ext" -out "$name.pem"
  chown "$uid:$uid" "$name.key"
  chmod 0600 "$name.key"
  rm "$name.csr" "$name.ext"
}
certificate curfew 65532 localhost curfew
certificate dex 65532 dex.localhost dex
certificate postgres 999 postgres
certificate mariadb 999 mariadb

password() { # password NAME UID
  (umask 077 && openssl rand -hex 24 > "$1.password")
  chown "$2" "$1.password"
}
# Curfew reads the brokers'; each database's set-up script needs its own, and reads it by its group.
password broker 65532:999
password mariadb-broker 65532:999
chmod 0640 broker.password mariadb-broker.password
password superuser 999:999
password mariadb-root 999:999
rm ca.key # nothing more is signed
touch ready
