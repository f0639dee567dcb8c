-- KEYS: zset node -> end of its lease; hash node -> NodeInfo.
local LEASES, INFOS = unpack(KEYS)
local node, life_ms, info = unpack(ARGV)
local now = now_ms()
local was_held = redis.call('ZSCORE', LEASES, node) and 1 or 0
redis.call('ZADD', LEASES, decimal(now + tonumber(life_ms)), node)
redis.call('HSET', INFOS, node, info)
local nodes = redis.call('ZRANGEBYSCORE', LEASES, decimal(now), '+inf')
return { 'ok', was_held, redis.call('HMGET', INFOS, unpack(nodes)) }
