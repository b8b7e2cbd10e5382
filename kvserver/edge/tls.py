"""The `tls-*` directives as an SSL context. It must not know sockets or connections.

Source: redis.conf and Redis 7.4's tls.c (tlsConfigure).
"""

from __future__ import annotations

import ssl
from typing import Final

from kvserver.config import Config, ConfigError

TLSContext = ssl.SSLContext

#: What a context is made of: each is followed at run time.
TLS_DIRECTIVES: Final = (
    "tls-cert-file",
    "tls-key-file",
    "tls-key-file-pass",
    "tls-ca-cert-file",
    "tls-ca-cert-dir",
    "tls-auth-clients",
    "tls-protocols",
    "tls-ciphers",
    "tls-prefer-server-ciphers",
)

_VERIFY: Final = {
    "yes": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "no": ssl.CERT_NONE,
}
_VERSIONS: Final = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


def tls_context(config: Config) -> TLSContext:
    """The context for connections that are accepted. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_versions(context, config.get_str("tls-protocols"))
    _load_certificates(context, config)
    _set_ciphers(context, config)
    return context


def tls_client_context(config: Config) -> TLSContext:
    """The context for connections to a primary, whose certificate an authority of ours must have
    signed; names are not compared, as in Redis. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    _set_versions(context, config.get_str("tls-protocols"))
    if not config.get_str("tls-ca-cert-file") and not config.get_str("tls-ca-cert-dir"):
        raise ConfigError("tls-replication needs tls-ca-cert-file or tls-ca-cert-dir")
    _load_files(context, config)
    _set_ciphers(context, config)
    return context


def _set_versions(context: TLSContext, words: str) -> None:
    names = words.split() or list(_VERSIONS)
    versions = [_VERSIONS.get(name.lower()) for name in names]
    known = [version for version in versions if version is not None]
    if len(known) < len(versions):
        raise ConfigError("tls-protocols takes TLSv1.2, TLSv1.3 or both")
    context.minimum_version, context.maximum_version = min(known), max(known)


def _load_certificates(context: TLSContext, config: Config) -> None:
    if not config.get_str("tls-cert-file"):
        raise ConfigError("tls-port needs tls-cert-file")
    verify = _VERIFY[config.get_str("tls-auth-clients")]
    known = config.get_str("tls-ca-cert-file") or config.get_str("tls-ca-cert-dir")
    if verify != ssl.CERT_NONE and not known:
        raise ConfigError(
            "tls-auth-clients needs tls-ca-cert-file or tls-ca-cert-dir; set it to no if clients "
            "have no certificates"
        )
    _load_files(context, config)
    context.verify_mode = verify


def _load_files(context: TLSContext, config: Config) -> None:
    """Our certificate and the authorities, those of them that are configured."""
    cert, key = config.get_str("tls-cert-file"), config.get_str("tls-key-file")
    ca_file, ca_dir = config.get_str("tls-ca-cert-file"), config.get_str("tls-ca-cert-dir")
    try:
        # Always with a password: without one OpenSSL asks for it on the terminal.
        if cert:
            context.load_cert_chain(cert, key or None, config.get_str("tls-key-file-pass"))
        if ca_file or ca_dir:
            context.load_verify_locations(ca_file or None, ca_dir or None)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"TLS certificates can't be loaded: {_reason(error)}") from None


def _set_ciphers(context: TLSContext, config: Config) -> None:
    if config.get_bool("tls-prefer-server-ciphers"):
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        if config.get_str("tls-ciphers"):
            context.set_ciphers(config.get_str("tls-ciphers"))
    except ssl.SSLError as error:
        raise ConfigError(f"TLS ciphers can't be set: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
