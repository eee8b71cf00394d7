"""The statements of both stores.

Each store gives its table, its ``now``, its ``until`` (the end of a lease) and its form of parameters. A statement that
changes something returns a row if it did.
"""

from __future__ import annotations

from typing import Final

_OWN: Final = "WHERE name = {name} AND token = {token} RETURNING name"

GET: Final = "SELECT name, record FROM {table} WHERE name = {name}"
PAGE: Final = "SELECT name, record FROM {table} WHERE name > {after} ORDER BY name LIMIT {limit}"
NOW: Final = "SELECT {now_in_seconds}"
# Claims the name if it is free. Its record is the new one if there is none.
CLAIM: Final = """
INSERT INTO {table} AS known (name, record, token, expires) VALUES ({name}, {record}, {token}, {until})
ON CONFLICT (name) DO UPDATE SET token = excluded.token, expires = excluded.expires
WHERE known.token IS NULL OR known.expires <= {now}
RETURNING name, record
"""
BEGIN: Final = "UPDATE {table} SET record = {record} " + _OWN
RENEW: Final = "UPDATE {table} SET expires = {until} " + _OWN
COMMIT: Final = "UPDATE {table} SET record = {record}, token = NULL " + _OWN
RELEASE: Final = "UPDATE {table} SET token = NULL " + _OWN
DELETE: Final = "DELETE FROM {table} " + _OWN
# Deletes the record if nobody holds a claim.
DISCARD: Final = "DELETE FROM {table} WHERE name = {name} AND (token IS NULL OR expires <= {now}) RETURNING name"

PARAMETERS: Final = ("name", "record", "token", "after", "limit")
