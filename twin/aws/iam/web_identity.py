"""AssumeRoleWithWebIdentity: who comes with a token of an identity provider gets the role only where its trust policy lets him.

Moto gives it to anybody. Claims are read as they stand in the token: its signature is of a provider that cannot be asked here.
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

import base64
import json
from urllib.parse import urlsplit

from twin.aws import wire
from twin.aws.iam import policy

ACTION = "sts:AssumeRoleWithWebIdentity"


def assume(request: wire.Request, forward: wire.Forward) -> wire.Response:
    from moto.iam.models import iam_backends

    backend, parameters = iam_backends[wire.ACCOUNT]["aws"], request.parameters
    role = next((one for one in backend.roles.values() if one.arn == parameters["RoleArn"]), None)
    claims = payload(parameters["WebIdentityToken"])
    issuer = urlsplit(claims["iss"]).netloc + urlsplit(claims["iss"]).path
    provider = next((one for one in backend.open_id_providers.values() if one.arn.endswith(f":oidc-provider/{issuer}")), None)
    if provider is None:
        raise wire.Refusal("InvalidIdentityToken", f"No OpenIDConnect provider found in your account for {claims['iss']}")
    if claims["aud"] not in provider.client_id_list:
        raise wire.Refusal("InvalidIdentityToken", "Incorrect token audience")
    context = {f"{issuer}:{name}": value for name, value in claims.items() if isinstance(value, str)}
    if role is None or not trusts(role.assume_role_policy_document, provider.arn, context):
        raise wire.Refusal("AccessDenied", f"Not authorized to perform {ACTION}", 403)
    return forward(request)


def payload(token: str) -> dict:
    try:
        body = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError) as error:
        raise wire.Refusal("InvalidIdentityToken", "The ID Token provided is not a valid JWT.") from error


def trusts(document: dict | str, provider: str, context: policy.Context) -> bool:
    """Whether a trust policy lets in who comes from this provider with these claims."""
    trust_policy = json.loads(document) if isinstance(document, str) else document
    about = [one for one in policy.statements(trust_policy) if provider in policy.as_list(one.get("Principal", {}).get("Federated", []))]
    return policy.decide([trust_policy | {"Statement": [one | {"Resource": "*"} for one in about]}], ACTION, "*", context) == policy.ALLOWED


operations: dict[str, wire.Handler] = {"sts.AssumeRoleWithWebIdentity": assume}
