-- Makes somebody the recorder, unless the lease of another runs.
local id, node, life, known, life_ms = unpack(ARGV, 4)
local one = stored(id)
if not one then return { 'no egress' } end
if is_over(one.status) then return { 'over' } end
local now = now_ms()
local is_same = one.node == node and one.life == life
if one.leased > now and not is_same then return { 'held' } end
-- The time in it makes it grow even when all of it was lost.
if one.leased <= now or not is_same then one.epoch = math.max(one.epoch + 1, tonumber(known) + 1, now) end
one.leased, one.node, one.life = now + tonumber(life_ms), node, life
keep(id, one)
return { 'ok', decimal(one.epoch), redis.call('HGET', EGRESSES, id) }
