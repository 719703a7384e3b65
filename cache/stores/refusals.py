"""What an object store's errors mean, in one line that names the thing and the fix."""

__all__ = ["in_transit", "refusal"]

import re

from textdiff.errors import UserError

_AGAIN = "then run the same command again"
_KINDS = (
    (
        r"NoSuchBucket|ContainerNotFound|bucket does not exist|container does not exist",
        "there is no such bucket; make it, or correct the address",
    ),
    (
        r"169\.254\.169\.254|metadata\.google|Account must be specified|[Cc]redential|MissingToken",
        "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (S3), "
        "GOOGLE_APPLICATION_CREDENTIALS (gs://), or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (az://)",
    ),
    (
        r"InvalidAccessKeyId|SignatureDoesNotMatch|\b401\b|\b403\b|[Uu]nauth|denied",
        "access is refused; check the credentials and what they may do there",
    ),
    (r"Unable to recognise URL", "is no address of a bucket; write it as in s3://bucket/path/x.zarr"),
    (
        r"scheme is not allowed|builder error|BadScheme",
        "the endpoint is http, without encryption; AWS_ALLOW_HTTP=true allows that",
    ),
    (
        r"dns|connect|timed? ?out|sending request",
        f"cannot be reached; check the network and AWS_ENDPOINT_URL, {_AGAIN}",
    ),
)


def in_transit(error: Exception) -> bool:
    """Whether an answer broke off on its way, which obstore itself does not repeat."""
    said = str(error).partition("Debug source")[0]
    return bool(re.search(r"(?i)body|incomplete|connection (reset|closed)|decod", said))


def refusal(where: str, error: Exception) -> UserError:
    """What to say of an error that repeating did not mend."""
    said = str(error)
    for pattern, meaning in _KINDS:
        if re.search(pattern, said):
            return UserError(f"{where}: {meaning}")
    first = " ".join(said.partition("\n")[0].split())
    return UserError(f"{where}: the object store fails ({first[:200]}); wait until it answers, {_AGAIN}")
