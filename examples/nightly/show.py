"""Prints the tables that read the answers."""

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
spark.table("mails_by_label").orderBy("day", "label").show(truncate=False)
spark.table("urgent_mails").orderBy("mail_id").show(truncate=80)
spark.stop()
