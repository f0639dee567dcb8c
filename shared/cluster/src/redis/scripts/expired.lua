-- The nodes whose lease ran out and whose people nobody is removing; the caller is, from now on. Who begins and does not
-- finish is followed by another. Besides, who has a lease.
-- REAPED: zset node -> when somebody began to remove its people.
local LEASES, INFOS, REAPED, SEATED = unpack(KEYS)
local patience_ms = tonumber(ARGV[1])
local now = now_ms()
local dead = redis.call('ZRANGEBYSCORE', REAPED, '-inf', decimal(now - patience_ms))
for _, node in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', '(' .. decimal(now))) do
  redis.call('ZREM', LEASES, node)
  redis.call('HDEL', INFOS, node)
  dead[#dead + 1] = node
end
local alive = redis.call('ZRANGE', LEASES, 0, -1)
for _, node in ipairs(unleased(SEATED, ARGV[2], alive)) do
  if not redis.call('ZSCORE', REAPED, node) then dead[#dead + 1] = node end
end
for _, node in ipairs(dead) do
  redis.call('ZADD', REAPED, decimal(now), node)
end
return { 'ok', dead, alive }
