"""The Price List service, for the few products that this project buys; `prices.json` says where each price was found and when."""

import hashlib
import json
from pathlib import Path

from twin.aws import wire

PRICES = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
ON_DEMAND, PER_UNIT = "JRTCKXETXF", "6YS6EN2CT7"  # the price list's own codes for the term and for its rate
REGION = {"location": "US East (N. Virginia)", "locationType": "AWS Region", "regionCode": "us-east-1", "servicecode": "AmazonEC2"}
LINUX = {"operatingSystem": "Linux", "tenancy": "Shared", "capacitystatus": "Used", "preInstalledSw": "NA", "operation": "RunInstances"}


class Pricing:
    def __init__(self):
        self.operations: dict[str, wire.Handler] = {"pricing.GetProducts": get_products}


def get_products(request: wire.Request, forward: wire.Forward) -> wire.Response:
    """Products that match every filter; as in the real service, each is a string of JSON."""
    filters = request.parameters.get("Filters", [])
    if any(one["Type"] != "TERM_MATCH" for one in filters):
        raise wire.Refusal("InvalidParameterException", "this emulation knows filters of type TERM_MATCH only")
    wanted = {one["Field"].lower(): one["Value"].lower() for one in filters} | {"servicecode": request.parameters["ServiceCode"].lower()}
    products = [product for product in [*instances(), *volumes()] if matches(product["product"], wanted)]
    return wire.answer({"FormatVersion": "aws_v1", "PriceList": [json.dumps(product) for product in products]})


def matches(product: dict, wanted: dict[str, str]) -> bool:
    known = product["attributes"] | {"productFamily": product["productFamily"], "sku": product["sku"]}
    known = {name.lower(): value.lower() for name, value in known.items()}
    return all(known.get(name) == value for name, value in wanted.items())


def instances() -> list[dict]:
    table, products = PRICES["compute"], []
    for kind, price in table["prices"].items():
        attributes = REGION | LINUX | {"instanceType": kind, "usagetype": f"BoxUsage:{kind}", "marketoption": "OnDemand"}
        words = f"${price} per On Demand Linux {kind} Instance Hour"
        products.append(product("Compute Instance", attributes, price, "Hrs", words, table["date"]))
    return products


def volumes() -> list[dict]:
    table, products = PRICES["storage"], []
    for kind, price in table["prices"].items():
        attributes = REGION | {"volumeApiName": kind, "volumeType": "General Purpose", "usagetype": f"EBS:VolumeUsage.{kind}"}
        words = f"${price} per GB-month of General Purpose ({kind}) provisioned storage - US East (Northern Virginia)"
        products.append(product("Storage", attributes, price, "GB-Mo", words, table["date"]))
    return products


def product(family: str, attributes: dict, price: str, unit: str, words: str, date: str) -> dict:
    sku = hashlib.sha256(attributes["usagetype"].encode()).hexdigest()[:16].upper()
    term, rate = f"{sku}.{ON_DEMAND}", f"{sku}.{ON_DEMAND}.{PER_UNIT}"
    dimension = {"unit": unit, "beginRange": "0", "endRange": "Inf", "description": words, "appliesTo": [], "rateCode": rate}
    dimension["pricePerUnit"] = {"USD": price}
    offer = {"sku": sku, "offerTermCode": ON_DEMAND, "effectiveDate": f"{date}T00:00:00Z", "termAttributes": {}}
    return {
        "product": {"productFamily": family, "attributes": attributes, "sku": sku},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {term: offer | {"priceDimensions": {rate: dimension}}}},
        "version": date.replace("-", ""),
        "publicationDate": f"{date}T00:00:00Z",
    }
