-- Returns 1 if the table, or a part of it that was not evicted, existed. Its last version stays.
local exists = call('HEXISTS', about, 'exists') == 1
if not exists and count_of(rows, deletes, keys, topics, order) == 0 then
    return 0
end
local version = (last or 0) + 1
note_in_any_case(version, pack('>I8I8I8', number, version, 0), function()
    step(exists and {'HSET', about, 'exists', ''} or {'HDEL', about, 'exists'}, 'HDEL', about, 'exists')
end)
-- From now on changes before it are unknown.
local deleted = call('HGET', about, 'deleted')
step(deleted and {'HSET', about, 'deleted', deleted} or {'HDEL', about, 'deleted'}, 'HSET', about, 'deleted', version)
for _, key in ipairs({rows, deletes, keys, topics, order}) do
    step(nil, 'UNLINK', key)
end
return outcome(1)
