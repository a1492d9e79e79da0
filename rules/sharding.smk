# Included where run.shards is above 1: several jobs share the embedding of a split and the search of a memory bank.
wildcard_constraints:
    shard=r"\d+",
    shards=r"\d+",


ruleorder: gather_embeddings > embed
ruleorder: gather_scores > score


use rule embed as embed_shard with:
    output:
        tokens=places.TOKENS_SHARD,
        cost=temp(places.TOKENS_SHARD_COST),
    log:
        "results/logs/embed/{dataset}/{embedding}/{split}/shard-{shard}-of-{shards}.log",
    params:
        batch_size=batch_size,  # compared: shards are whole batches


rule gather_embeddings:
    input:
        tokens=shards_of(places.TOKENS_SHARD),
        costs=shards_of(places.TOKENS_SHARD_COST),
    output:
        tokens=places.TOKENS,
        cost=places.TOKENS_COST,
    log:
        "results/logs/gather_embeddings/{dataset}/{embedding}/{split}.log",
    localrule: True
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        library=code_of("gather_embeddings"),
    script:
        "../scripts/gather_embeddings.py"


use rule score as score_shard with:
    output:
        scores=temp(places.SCORES_SHARD),
        cost=temp(places.SCORES_SHARD_COST),
    log:
        "results/logs/score/{dataset}/{embedding}/{model}/seed-{seed}/{split}/shard-{shard}-of-{shards}.log",


rule gather_scores:
    input:
        manifest=places.MANIFEST,
        manifest_origin=origin(places.MANIFEST),
        scores=shards_of(places.SCORES_SHARD),
        costs=shards_of(places.SCORES_SHARD_COST),
    output:
        scores=places.SCORES,
        cost=places.SCORES_COST,
    log:
        "results/logs/gather_scores/{dataset}/{embedding}/{model}/seed-{seed}/{split}.log",
    wildcard_constraints:
        model="|".join(searching_models()) or "(?!)",
    localrule: True
    conda:
        "../envs/torch.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        library=code_of("gather_scores"),
    script:
        "../scripts/gather_scores.py"
