"""What an hour of a box costs. The only file with boto3's pricing."""

import json

from remote.aws import Aws


def per_hour(aws: Aws, instance_type: str) -> tuple[float | None, str | None]:
    """USD an hour on demand and where that figure is from; (None, None) when nobody says: a price is never remembered."""
    wanted = {
        "ServiceCode": "AmazonEC2",
        "instanceType": instance_type,
        "regionCode": aws.cloud.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    return _look_up(aws, "Hrs", wanted)


def disk_month(aws: Aws, kind: str) -> tuple[float | None, str | None]:
    """USD for a GB of a volume for a month, and where that figure is from."""
    return _look_up(
        aws, "GB-Mo", {"ServiceCode": "AmazonEC2", "productFamily": "Storage", "volumeApiName": kind, "regionCode": aws.cloud.region}
    )


def bucket_month(aws: Aws) -> tuple[float | None, str | None]:
    """USD for a GB in S3 for a month, in its first tier, and where that figure is from."""
    wanted = {"ServiceCode": "AmazonS3", "storageClass": "General Purpose", "volumeType": "Standard", "regionCode": aws.cloud.region}
    return _look_up(aws, "GB-Mo", wanted)


def _look_up(aws: Aws, unit: str, wanted: dict[str, str]) -> tuple[float | None, str | None]:
    from botocore.exceptions import BotoCoreError, ClientError

    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items() if field != "ServiceCode"]
    try:
        products = aws.client("pricing").get_products(ServiceCode=wanted["ServiceCode"], Filters=filters)["PriceList"]
    except (ClientError, BotoCoreError):
        return None, None
    for product in map(json.loads, products):
        for term in product["terms"].get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                if dimension["unit"] == unit and dimension.get("beginRange", "0") == "0":
                    return float(dimension["pricePerUnit"]["USD"]), f"AWS Price List, {aws.cloud.region}, {term['effectiveDate'][:10]}"
    return None, None
