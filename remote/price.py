"""What an hour of a box costs. The only file with boto3's pricing."""

import json

from remote.aws import Aws


def per_hour(aws: Aws, instance_type: str) -> tuple[float | None, str | None]:
    """USD an hour on demand and where that figure is from; (None, None) when nobody says: a price is never remembered."""
    from botocore.exceptions import BotoCoreError, ClientError

    wanted = {
        "ServiceCode": "AmazonEC2",
        "instanceType": instance_type,
        "regionCode": aws.cloud.region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items() if field != "ServiceCode"]
    try:
        products = aws.client("pricing").get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
    except (ClientError, BotoCoreError):
        return None, None
    for product in map(json.loads, products):
        for term in product["terms"].get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                if dimension["unit"] == "Hrs":
                    return float(dimension["pricePerUnit"]["USD"]), f"AWS Price List, {aws.cloud.region}, {term['effectiveDate'][:10]}"
    return None, None
