#!/bin/sh
# backup.sh FOLDER: writes FOLDER/<time>.dump and FOLDER/<time>.workspaces.tar while servers go on.
# Needs DATABASE_URL (the login that owns the database), STATIONMASTER_DATA_FOLDER, and a pg_dump that is not older than
# the PostgreSQL. The keys of the installation are not in it: keep them elsewhere.
set -eu
umask 077
: "${DATABASE_URL:?the URL of the database}" "${STATIONMASTER_DATA_FOLDER:?the data folder of a server}"
folder=${1:?usage: backup.sh FOLDER}
name=$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$folder"
trap 'rm -f "$folder/$name.dump.part" "$folder/$name.workspaces.tar.part"' EXIT

# The database first: what happens to files meanwhile looks to the restored one as after a crash, which it can mend.
pg_dump --format=custom --no-owner --no-comments --file="$folder/$name.dump.part" "$DATABASE_URL"
pg_restore --list "$folder/$name.dump.part" > /dev/null
mkdir -p "$STATIONMASTER_DATA_FOLDER/workspaces"
# 1: a file changed while it was read.
tar --create --file="$folder/$name.workspaces.tar.part" --directory="$STATIONMASTER_DATA_FOLDER" workspaces || [ $? -eq 1 ]

mv "$folder/$name.workspaces.tar.part" "$folder/$name.workspaces.tar"
mv "$folder/$name.dump.part" "$folder/$name.dump"
echo "$folder/$name"
