"""What an hour of a box costs. The only file with boto3's pricing."""

import json
from datetime import UTC, datetime
from pathlib import Path

from remote.aws.session import Aws

# For a plan where AWS cannot be asked; it says its date.
TABLE = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))


def per_hour(aws: Aws, instance_type: str) -> tuple[float | None, str | None]:
    """USD an hour on demand and where that figure is from; (None, None) when nobody says: a price is never remembered."""
    return _look_up(aws, "Hrs", _instance_filters(aws, instance_type))


def planned(aws: Aws, instance_type: str, configured: float | None) -> tuple[float | None, str | None]:
    """USD an hour to plan with: as `cost.per_hour` says, as AWS says, or from our table where AWS cannot be asked, which it says then."""
    from botocore.exceptions import BotoCoreError, ClientError

    if configured is not None:
        return configured, "as cost.per_hour says"
    try:
        return _query(aws, "Hrs", _instance_filters(aws, instance_type), once=True)
    except (ClientError, BotoCoreError):
        price = TABLE["prices"].get(instance_type) if aws.cloud.region == TABLE["region"] else None
        why = f"AWS's Price List cannot be asked now: a table of {TABLE['date']}, {TABLE['source']}"
        return (price, why) if price is not None else (None, None)


def spot(aws: Aws, types: list[str]) -> dict[str, float]:
    """USD an hour on spot now, in the cheapest zone, of each type for which AWS says it."""
    from botocore.exceptions import BotoCoreError, ClientError

    request = {"InstanceTypes": types, "ProductDescriptions": ["Linux/UNIX"], "StartTime": datetime.now(UTC)}
    try:
        pages = aws.client("ec2").get_paginator("describe_spot_price_history").paginate(**request)
        rows = [(price["InstanceType"], float(price["SpotPrice"])) for page in pages for price in page["SpotPriceHistory"]]
    except (ClientError, BotoCoreError):
        return {}
    return {kind: min(usd for each, usd in rows if each == kind) for kind, _ in rows}


def _instance_filters(aws: Aws, instance_type: str) -> dict[str, str]:
    return {
        "ServiceCode": "AmazonEC2",
        "instanceType": instance_type,
        "regionCode": aws.cloud.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }


def disk_month(aws: Aws, kind: str) -> tuple[float | None, str | None]:
    """USD for a GB of a volume for a month, and where that figure is from."""
    return _look_up(
        aws, "GB-Mo", {"ServiceCode": "AmazonEC2", "productFamily": "Storage", "volumeApiName": kind, "regionCode": aws.cloud.region}
    )


def bucket_month(aws: Aws) -> tuple[float | None, str | None]:
    """USD for a GB in S3 for a month, in its first tier, and where that figure is from."""
    product_filter = {
        "ServiceCode": "AmazonS3",
        "storageClass": "General Purpose",
        "volumeType": "Standard",
        "regionCode": aws.cloud.region,
    }
    return _look_up(aws, "GB-Mo", product_filter)


def _look_up(aws: Aws, unit: str, product_filter: dict[str, str]) -> tuple[float | None, str | None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return _query(aws, unit, product_filter)
    except (ClientError, BotoCoreError):
        return None, None


def _query(aws: Aws, unit: str, product_filter: dict[str, str], once: bool = False) -> tuple[float | None, str | None]:
    """The first price of the first product that fits; (None, None) where the list has none."""
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in product_filter.items() if field != "ServiceCode"]
    products = aws.client("pricing", once=once).get_products(ServiceCode=product_filter["ServiceCode"], Filters=filters)["PriceList"]
    for product in map(json.loads, products):
        for term in product["terms"].get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                if dimension["unit"] == unit and dimension.get("beginRange", "0") == "0":
                    return float(dimension["pricePerUnit"]["USD"]), f"AWS Price List, {aws.cloud.region}, {term['effectiveDate'][:10]}"
    return None, None
