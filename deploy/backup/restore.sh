#!/bin/sh
# restore.sh BACKUP: puts what backup.sh wrote (BACKUP.dump, BACKUP.workspaces.tar) into the empty database DATABASE_URL,
# which deploy/database/prepare.sql made, and into the data folder STATIONMASTER_DATA_FOLDER. No server may run on them.
set -eu
umask 077
: "${DATABASE_URL:?the URL of the database}" "${STATIONMASTER_DATA_FOLDER:?the data folder of a server}"
backup=${1:?usage: restore.sh BACKUP}
for file in "$backup.dump" "$backup.workspaces.tar"; do
    [ -r "$file" ] || { echo "restore.sh: $file is not there" >&2; exit 1; }
done
tables=$(psql -X -A -t -c "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'" "$DATABASE_URL")
[ "$tables" -eq 0 ] || { echo "restore.sh: the database has $tables tables already; restore into an empty one" >&2; exit 1; }
if [ -n "$(ls -A "$STATIONMASTER_DATA_FOLDER/workspaces" 2> /dev/null)" ]; then
    echo "restore.sh: $STATIONMASTER_DATA_FOLDER/workspaces is not empty; move it away" >&2
    exit 1
fi

pg_restore --exit-on-error --single-transaction --no-owner --no-comments --dbname="$DATABASE_URL" "$backup.dump"
mkdir -p "$STATIONMASTER_DATA_FOLDER"
tar --extract --file="$backup.workspaces.tar" --directory="$STATIONMASTER_DATA_FOLDER"
echo "restored $backup; next: stationmaster-server migrate, then doctor"
