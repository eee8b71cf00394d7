"""Whether the ACL of a tenant opens its topics or indexes, and not its neighbour's: by the engine's own client."""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from typing import Any

from ..engines import Engine
from ..tenants import Credential
from ..tenants._naming import names_of
from .doctor_findings import Findings

_SECONDS = 15.0  # for one question to the server


async def try_pattern(findings: Findings, credential: Credential) -> None:
    """Ask the server, if its client is installed and it can be reached. Does nothing on engines with databases."""
    prefix = credential.prefix
    if prefix is None:
        return
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    ask = _may_make_topic if credential.engine == Engine.KAFKA else _may_make_index
    others = names_of(f"{credential.name}x", credential.engine).objects
    try:
        own, neighbour = await ask(credential, f"{prefix}doctor"), await ask(credential, f"{others}doctor")
    except ImportError as error:
        findings.skip("pattern", f"to try it, install {error.name}")
    except Exception as error:  # noqa: BLE001 - the clients have many exceptions, and each means the same here
        findings.skip("pattern", f"the server cannot be asked: {type(error).__name__}")
    else:
        found = f"{prefix}* opens {'its own names' if own else 'not even its own names'}"
        if own and not neighbour:
            findings.ok("pattern", f"{found}, and not its neighbour's")
        else:
            findings.fail("pattern", f"{found}{', and its neighbour too' if neighbour else ''}", "Report it")


async def _may_make_topic(credential: Credential, topic: str) -> bool:
    admin: Any = import_module("aiokafka.admin")  # neither client has types
    errors: Any = import_module("aiokafka.errors")
    client = admin.AIOKafkaAdminClient(
        bootstrap_servers=f"{credential.host}:{credential.port}",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_plain_username=credential.username,
        sasl_plain_password=credential.password,
        ssl_context=credential.ssl_context(),
    )
    try:
        async with asyncio.timeout(_SECONDS):
            await client.start()
            answer = await client.create_topics([admin.NewTopic(topic, 1, 1)], validate_only=True)
    finally:
        await client.close()
    return all(code != errors.TopicAuthorizationFailedError.errno for _, code, *_ in answer.topic_errors)


async def _may_make_index(credential: Credential, index: str) -> bool:
    opensearch: Any = import_module("opensearchpy")
    client = opensearch.AsyncOpenSearch(credential.uri, ssl_context=credential.ssl_context(), timeout=_SECONDS)
    try:
        await client.index(index=index, body={"doctor": True})
    except opensearch.AuthorizationException:
        return False
    finally:
        await client.close()
    return True
