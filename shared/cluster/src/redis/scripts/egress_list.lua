-- The recordings of the room, or one of them, each with the epoch and the node of its last recorder and whether the lease runs.
local id = ARGV[4]
local ids = id == '' and redis.call('HKEYS', EGRESSES) or { id }
local all = {}
for _, each in ipairs(ids) do
  local one, egress = stored(each), redis.call('HGET', EGRESSES, each)
  if one and egress and not is_forgotten(one) then
    all[#all + 1] = egress
    all[#all + 1] = decimal(one.epoch)
    all[#all + 1] = one.node
    all[#all + 1] = one.leased > now_ms() and '1' or '0'
  end
end
return { 'ok', all }
